# %% [markdown]
# # 03 Registration: the sections of a block in one frame
#
# **Question.** Which spot of the measured section lies where a spot of its neighbour lies?
#
# **In:** the slides. **Out:** one map per section to the middle section of its stack, and how far to trust
# it. **Time:** seconds per pair.

# %%
import numpy as np
import pandas as pd
from IPython.display import display

from stlib import datasets, figures, paths, show
from stlib.cell import parameters
from stlib.registration import register_dataset
from stlib.results import Run

# %% tags=["parameters"]
dataset: str = "toy"  # a file in params/

# %%
p = parameters(globals(), "03_registration")
run = Run("registration", p.dataset).begin()
params = run.params
display(show.settings(params))

# %% [markdown]
# ## Neighbours are aligned, and composed to the middle section
#
# Tissue masks give the start, intensity refines it; feature matches are used only where their inliers prove
# them. A stage that makes things worse is refused, and says so. `overlap` is the IoU of the tissue masks,
# `similarity` the correlation of the smoothed stain within both.

# %%
aligned = register_dataset(params)
report = pd.DataFrame([stage for found in aligned.values() for stage in found.report()])
display(report.round(3))

# %% [markdown]
# An alignment counts as proven only if no other rotation comes near it.

# %% tags=["nbval-check-output"]
doubtful = {name: found.message for name, found in aligned.items() if not found.ok}
print(f"{len(aligned) - len(doubtful)} of {len(aligned)} sections are proven to lie where they were put")
print("\n".join(f"{name}: {message}" for name, message in doubtful.items()))

# %% [markdown]
# ## Before and after
#
# Tissue of the middle section is orange, of the other blue, and where both lie it is dark.

# %%
stack = max(params.sections.values(), key=len)
display(figures.alignment(params, stack, aligned))

# %% [markdown]
# ## How far off is it?
#
# The toy was cut by a transform that we know, a rotation, a shift and a smooth warp; real tissue has no such
# answer.

# %% tags=["nbval-check-output"]
error_um = {}
if params.source.reader == "toy":
    matrices = {name: found.matrix for name, found in aligned.items()}
    error_um = datasets.reader(params).registration_error(params, matrices)
    moved = [error for error in error_um.values() if error > 0]
    print(
        f"spots are misplaced by {np.mean(moved):.0f} um on average (pitch {params.spot.pitch_um:.0f} um), "
        f"in the worst section by {max(moved):.0f} um"
    )
else:
    print("the true transform is not known")

# %% [markdown]
# ## Summary
#
# - Each section has one affine map to the middle section of its stack; a smooth remainder stays.
# - What is not proven says so, and goes on saying so wherever the map is used.

# %%
print(run.finish(proven=len(aligned) - len(doubtful), error_um=error_um).relative_to(paths.OUT))
