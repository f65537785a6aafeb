# %% [markdown]
# # 13 Transfer: trained on some locations, tested on others
#
# **Question.** What does a model that learned from spots of one size say of bins of another, or of another
# dataset?
#
# **In:** prepared sections of both (`make prepare DATASET=toy_hd`: all its sizes). **Out:** predictions of
# every tested location, from a model that never saw its slide. **Time:** that of a training.

# %%
from IPython.display import display

from stlib import figures, metrics, paths, show
from stlib.cell import parameters
from stlib.params import load_params, sized
from stlib.results import Run

# %% tags=["parameters"]
dataset: str = "toy_hd@100um"  # trained on: a dataset, one of its sizes, or several: toy_hd@8um+16um
to: str = "toy_hd@16um"        # tested on
model: str = "pixnet"          # a file in stlib/models/, with @variant if wanted; "controls": the untrained
setting: str = "strict"        # there is no other
seed: int = 0                  # of weights, order of batches and augmentation

# %%
p = parameters(globals(), "13_transfer")
run = Run("transfer", p.dataset, p.model, p.setting, p.seed, p.to).begin()
for name in sized(p.dataset):
    display(show.settings(load_params(name), run))

# %% [markdown]
# ## The idea, in the words of its file

# %%
for member in run.members:
    display(show.idea(member.model, member.config))

# %% [markdown]
# ## Who may look at what
#
# A slide is never on both sides, at any size. A patient that trains chooses the epoch, at the sizes that are
# trained on: nothing is known of what is tested.

# %% tags=["nbval-check-output"]
print(show.folds(run.folds).to_string())

# %% [markdown]
# ## Training
#
# Labels are logarithms of shares of few counts, whose scale depends on how many were counted: those that are
# trained on are the ones to be expected if as much had been counted as on the area of a tested location.

# %%
predictions, history = {}, {}
for member in run.members:
    predictions[member], history[member] = member.train()

# %%
display(figures.training(history))

# %% [markdown]
# ## What it is worth
#
# Against the labels as they were measured at the tested locations. What the controls score on the same ones
# stands in the table (`make reproduce-pixnet-table2`).

# %% tags=["nbval-check-output"]
scores = {member.model: metrics.overview(predictions[member]) for member in run.members}
print(show.scores(scores))

# %% [markdown]
# ## What it looks like
#
# Of a slide in bins a sample is tested, squares of neighbours (`sample` in the settings), and drawn.

# %%
member, tested = run.members[-1], load_params(p.to)
for gene in tested.showcase:
    display(figures.section_maps(predictions[member], gene, tested, member.model))

# %% [markdown]
# ## Summary
#
# - Patches, pixels and columns were brought to the scale that was trained on; the panel is that of the
#   training, as far as the tested locations measure it.
# - Scores here are for the reader; tables are computed from the predictions by 08.

# %%
for member in run.members:
    member.save(predictions[member], history[member])
if run.shared:
    run.finish()
print(run.record.relative_to(paths.OUT))
