# %% [markdown]
# # 06 Train, protocol hd: predict the bins of an unseen slide
#
# **Question.** How much of the expression in bins of 8 or 16 um, or in pseudo-spots made of them, can be read
# off the slide?
#
# **In:** patches, features and graphs of 02 at one size; counts of the training slides. **Out:** predictions
# for the sampled locations of every test slide, from a model that never saw it. **Time:** about a minute per
# model and size on the toy and two cores; on crc_hd a GPU is wanted.

# %%
from IPython.display import display

from stlib import figures, metrics, overlays, paths, show
from stlib.cell import parameters
from stlib.results import Run
from stlib.sections import load_sections
from stlib.splits import folds

# %% tags=["parameters"]
dataset: str = "toy_hd@16um"  # a file in params/, at one of its sizes
model: str = "magnet"         # a file in stlib/models/, with @variant if wanted; "controls": the untrained
setting: str = "strict"       # strict, or published: the papers' own choices
seed: int = 0                 # of weights, order of batches and augmentation

# %%
p = parameters(globals(), "06_train_hd")
run = Run("hd", p.dataset, p.model, p.setting, p.seed).begin()
params = run.params
display(show.settings(params, run))

# %% [markdown]
# ## The idea, in the words of its file

# %%
for member in run.members:
    display(show.idea(member.model, member.config))

# %% [markdown]
# ## What was sampled, and the levels around it
#
# Of millions of bins a few squares are kept: whole neighbourhoods, because single bins drawn from a slide
# have no neighbours. Around each location lie its own patch and the cells of two grids; a cell is labelled by
# all that was measured in it, not by the sample alone.

# %%
first = next(iter(load_sections(params, params.with_slide[:1]).values()))
display(overlays.levels(params, first))

# %% [markdown]
# ## Who may look at what
#
# A slide is a patient here. Panel, scale and every choice come from training slides; where several train, one
# of them picks the epoch, then the model is trained anew on all of them. Nothing is known of the test slide.

# %% tags=["nbval-check-output"]
print(show.folds(folds(params, run.step, run.setting)).to_string())

# %% [markdown]
# ## Training
#
# Each fold builds its model anew. A finished fold and epoch are kept: a run that was killed goes on where it
# stood.

# %%
predictions, history = {}, {}
for member in run.members:
    predictions[member], history[member] = member.train()

# %%
display(figures.training(history))

# %% [markdown]
# ## What it is worth
#
# Scores per slide; `pcc_per_gene` is the headline: across the locations *within* a slide. In small bins most
# of the error is counting noise, so that errors of two sizes say nothing about each other.

# %% tags=["nbval-check-output"]
scores = {member.model: metrics.overview(predictions[member]) for member in run.members}
print(show.scores(scores))

# %% [markdown]
# ## What it looks like

# %%
member = run.members[-1]
for gene in params.showcase:
    display(figures.section_maps(predictions[member], gene, params, member.model))

# %% [markdown]
# ## Summary
#
# - Every sampled location of a test slide was predicted by a model that never saw that slide or its counts.
# - Scores here are for the reader; tables are computed from the predictions by 08.

# %%
for member in run.members:
    member.save(predictions[member], history[member])
if run.shared:
    run.finish()
print(run.record.relative_to(paths.OUT))
