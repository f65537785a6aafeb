# %% [markdown]
# # 03 Registration: the sections of a block in one frame
#
# **Question.** Which spot of the measured section lies where a spot of its neighbour lies?
#
# **In:** the slides. **Out:** one map per section to the middle section of its stack, and how far to trust
# it. **Time:** seconds per pair.

# %%
import numpy as np
from IPython.display import display

from stlib import datasets, overlays, paths, show
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
# In the route `robust` a search over all rotations and shifts, of the slide and of its mirror image, gives
# the start; intensity refines it, rigid to affine; a smooth field takes up what is left, if it predicts
# local shifts that it was not fitted to. The route `ants` is that of ASIGN's paper: XFeat matches give the
# start, or that search where too few of them agree; ANTs refines it, rigid and affine, and its SyN takes up
# what is left. In both, a stage that makes things worse is refused, and an alignment that is not proven is
# not bent.
#
# `overlap` is the IoU of the tissue masks, `similarity` the correlation of the smoothed stain within both,
# `detail` the mean of their correlations in small windows, `information` their mutual information (nats);
# each before the stage and after what it proposed. `taken over` says whether that was better.

# %%
aligned = register_dataset(params)
display(show.stages(aligned))

# %%
tried = [stage for found in aligned.values() for stage in found.stages]
refused = [stage.name for stage in tried if not stage.accepted]
print(f"{len(refused)} of {len(tried)} stages were refused: {', '.join(sorted(set(refused)))}")

# %% [markdown]
# An alignment counts as proven only if no other rotation, and no mirror image, comes near it. A section
# that is not proven is no bridge for others.
#
# What is proven is each step. Errors of steps add up, and structures that lean through the block take the
# map with them, which nothing in the images tells from a shift: far from the middle section trust places
# less. On painted tissue the error grows like the root of the number of sections passed.

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
display(overlays.alignment(params, stack, aligned))

# %% [markdown]
# The spots of each neighbour, where the map puts them, on a patch of the middle section's tissue. A spot's
# label holds for what lies in its red outline.

# %%
display(overlays.spots_on_neighbour(params, stack, aligned))

# %% [markdown]
# ## How far off is it?
#
# The toy was cut by a transform that we know, a rotation, a shift and a smooth warp; real tissue has no
# such answer. Half a spot radius is 25 um.

# %% tags=["nbval-check-output"]
error_um = {}
if params.source.reader == "toy":
    errors = datasets.reader(params).registration_error(params, aligned)
    error_um = {name: float(np.median(error)) for name, error in errors.items()}
    moved = [error for error in error_um.values() if error > 1e-6]
    print(
        f"spots are misplaced by {np.mean(moved):.0f} um (median of a section, mean over sections), in the "
        f"worst section by {max(moved):.0f} um"
    )
else:
    print("the true transform is not known")

# %% [markdown]
# ## Summary
#
# - Each section has a chain of maps to the middle section of its stack: affine, then a smooth field where
#   one is proven; there and back are exact.
# - What is not proven says so, and goes on saying so wherever the map is used.

# %%
print(run.finish(proven=len(aligned) - len(doubtful), error_um=error_um).relative_to(paths.OUT))
