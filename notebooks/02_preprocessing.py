# %% [markdown]
# # 02 Preprocessing: counts to expression, slide to features and graph
#
# **Question.** What does a model get to see, and what is it asked for?
#
# **In:** the prepared sections. **Out:** cached patches and frozen features at three levels of context.
# **Time:** seconds on the toy, minutes per slide for a real encoder; a second run computes nothing.

# %%
import numpy as np
import pandas as pd
from IPython.display import display

from stlib import graph, overlays, paths, show
from stlib.cell import parameters
from stlib.expression import log_proportion, panel_counts, top_mean_panel
from stlib.features import features, patches
from stlib.models import Config
from stlib.results import Run
from stlib.sections import load_sections

# %% tags=["parameters"]
dataset: str = "toy"  # a file in params/

# %%
p = parameters(globals(), "02_preprocessing")
run = Run("preprocessing", p.dataset).begin()
params = run.params
display(show.settings(params))

# %% [markdown]
# ## The panel: which genes are predicted
#
# The genes of the highest mean raw count: mean over spots, then over sections. Here all sections are looked
# at, as the papers do (`published`). Under `strict` each fold chooses its own, from training patients alone.

# %% tags=["nbval-check-output"]
sections = load_sections(params, params.patient_of)
panel = top_mean_panel(sections.values(), params.panel.size)
print(f"{len(panel)} genes, first: {' '.join(panel[:10])}")

# %% [markdown]
# ## The label: log proportion within the panel
#
# $t_g = \ln\frac{x_g + 1}{\sum_h (x_h + 1)}$, per spot over the panel. Labels are negative. The part
# of their variance that lies between genes is what a constant profile gets right: it earns a correlation
# *across genes*, and none across spots.

# %% tags=["nbval-check-output"]
labels = {name: log_proportion(panel_counts(sections[name], panel)) for name in params.with_slide}
everything = np.concatenate(list(labels.values()))
between = everything.mean(0).var() / everything.var()
print(f"{between:.0%} of the label's variance is between genes, {1 - between:.0%} between spots")

# %% [markdown]
# ## Patches at three levels, and what a frozen encoder makes of them
#
# The spot has its own patch; the region and the global level are the cells of a grid that hold at least one
# spot. Patches and features are kept by content, so that whoever asks again reads them from disk.

# %%
rows = []
for name in params.with_slide:
    patches(params, sections[name], "spot")
    for level in ("spot", "region", "global"):
        found = features(params, sections[name], level)
        rows.append({"section": name, "level": level, "patches": found.shape[0], "features": found.shape[1]})
summary = pd.DataFrame(rows).pivot(index="section", columns="level", values="patches")
summary = summary.loc[list(params.with_slide)]

# %% tags=["nbval-check-output"]
print(f"patches per section ({params.encoder}, {rows[0]['features']} features each)")
print(summary[["spot", "region", "global"]].to_string())

# %%
first = sections[params.with_slide[0]]
shown = np.linspace(0, len(first) - 1, 6).astype(int)
display(overlays.gallery({f"spot {i}": patches(params, first, "spot")[i] for i in shown}))

# %% [markdown]
# ## Neighbours within a section

# %% tags=["nbval-check-output"]
near = Config().intra
edges, distance = graph.knn_graph(first.position, near)
print(
    f"section {first.name}: {near} nearest neighbours, median distance "
    f"{np.median(distance) * first.um_per_px.mean():.0f} um"
)

# %% [markdown]
# ## Summary
#
# - Labels are log proportions within a panel; what of their variance lies between genes, a constant explains.
# - Patches, features and cells are cached by content for every section with a slide.

# %%
print(run.finish(encoder=params.encoder).relative_to(paths.OUT))
