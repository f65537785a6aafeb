# %% [markdown]
# # 03 Registration: the sections of a block in one frame
#
# **Question.** Which spot of the measured section lies where a spot of its neighbour lies?
# **In:** the slides. **Out:** one map per section to the middle section of its stack, and how far to trust it. **Time:** seconds per pair.

# %%
import numpy as np
import pandas as pd
from IPython.display import display

from stlib import datasets, paths, plots, show
from stlib.registration import register_dataset
from stlib.results import Run, parameters
from stlib.sections import load_sections

# %% tags=["parameters"]
dataset: str = "toy"  # a file in params/

# %%
p = parameters(globals(), "03_registration")
run = Run("registration", p.dataset)
params = run.params
display(show.settings(params))

# %% [markdown]
# ## Adjacent sections are aligned, then composed to the middle one
#
# Tissue masks give the start, intensity refines it; feature matches are used only where their inliers prove them. A stage that makes things worse is refused,
# and says so.

# %%
aligned = register_dataset(params)
report = pd.DataFrame([stage for found in aligned.values() for stage in found.report()])
display(report.round(3))

# %% [markdown]
# ## Before and after

# %%
stack = max(params.sections.values(), key=len)
display(plots.alignment(params, stack, aligned))
