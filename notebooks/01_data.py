# %% [markdown]
# # 01 Data: fetch, verify and describe one dataset
#
# **Question.** Is what we have what its source published?
#
# **In:** the raw files (downloaded, generated, or a local copy given as `data`). **Out:** one `.h5ad` with
# raw counts and one pyramidal slide per section. **Time:** seconds on the toy; about half a minute per her2st
# slide, once.

# %%
import pandas as pd
from IPython.display import display

from stlib import datasets, overlays, paths, show
from stlib.cell import parameters
from stlib.expression import common_genes
from stlib.results import Run
from stlib.sections import load_sections
from stlib.slide import Slide

# %% tags=["parameters"]
dataset: str = "toy"  # a file in params/
data: str = ""        # folder with a local copy of the raw files; empty: download or generate them

# %%
p = parameters(globals(), "01_data")
run = Run("data", p.dataset, data=p.data).begin()
params = run.params
display(show.settings(params))

# %% [markdown]
# ## Every file is there, and is the file we mean
#
# The reader of this source fetches what is missing and refuses what does not fit: each error says what was
# needed, what was found, where, and what to do.

# %%
folder = datasets.raw_folder(params, p.data)
datasets.fetch(params, folder)

# %% [markdown]
# ## Each source ends in the same form
#
# Raw integer counts and centres in level-0 pixels per section; the slide beside them as a tiled pyramid that
# OpenSlide opens. Nothing is normalised here. What a reader of bins met on its way stands behind the counts:
# how many bins there are, how many of them lie beyond the slide, and of how many locations a sample is kept.

# %%
manifest = datasets.prepare(params, folder)
sections = load_sections(params, params.patient_of)

# %% tags=["nbval-check-output"]
table = pd.DataFrame(
    {
        "patient": [s.patient for s in sections.values()],
        "layer": [s.layer for s in sections.values()],
        "slide": [name in params.with_slide for name in sections],
        "spots": [len(s) for s in sections.values()],
        "genes": [len(s.genes) for s in sections.values()],
        "median UMI per spot": [float(pd.Series(s.counts.sum(1).A1).median()) for s in sections.values()],
    },
    index=pd.Index(sections, name="section"),
)
facts = pd.DataFrame.from_dict({name: s.facts for name, s in sections.items()}, orient="index")
print(table.join(facts).to_string())

# %% [markdown]
# ## The totals are those we expect
#
# A difference is printed beside what was expected; it warns and does not stop.

# %% tags=["nbval-check-output"]
found = datasets.totals(sections)
print(datasets.compare(found, params.expect))
print(f"{len(common_genes(sections.values()))} genes are measured in every section")

# %% [markdown]
# ## The slides

# %%
thumbnails = {}
for name in params.with_slide[:6]:
    with Slide(paths.slide_file(params.name, name)) as slide:
        thumbnails[name] = slide.thumbnail(um_per_px=max(slide.size_px) * slide.um_per_px.mean() / 300)[0]
figure = overlays.gallery(thumbnails)
display(figure)

# %% [markdown]
# ## Summary
#
# - Each section has its counts, its positions and, where a slide is at hand, its image, in one form for all
#   sources.
# - The manifest holds a hash of each; every later result names it.

# %%
print(run.finish(totals=found).relative_to(paths.OUT))
