# %% [markdown]
# # 05 Train, protocol 3d: one section measured, impute the others
#
# **Question.** If one section of a block is measured, what is known of its neighbours?
#
# **In:** the same as 04, the registration of 03, and the expression of one section of each test patient.
# **Out:** predictions for its other sections. **Time:** about a minute per model on the toy and two cores; on
# her2st a GPU is wanted.

# %%
from IPython.display import display

from stlib import figures, metrics, paths, show
from stlib.cell import parameters
from stlib.results import Run
from stlib.splits import folds

# %% tags=["parameters"]
dataset: str = "toy"     # a file in params/
model: str = "asign"     # a file in stlib/models/, with @variant if wanted; "controls": all untrained ones
setting: str = "strict"  # strict, or published: the papers' own choices
seed: int = 0            # of weights, order of batches and augmentation

# %%
p = parameters(globals(), "05_train_3d")
run = Run("3d", p.dataset, p.model, p.setting, p.seed).begin()
params = run.params
display(show.settings(params, run))

# %% [markdown]
# ## The idea, in the words of its file

# %%
for member in run.members:
    display(show.idea(member.model, member.config))

# %% [markdown]
# ## Who may look at what
#
# The known section of each test patient is measured: its expression is an input, and may be trained on. The
# counts of all other test sections are never read; a model that tried would meet NaN.

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
# Scores per patient; `pcc_per_gene` is the headline: across the spots *within* a section. A constant has
# none, and says so.

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
# - Every test spot was predicted from slides, registration and one measured section of its patient.
# - Known sections are not scored. Tables are computed from the predictions by 08.

# %%
for member in run.members:
    member.save(predictions[member], history[member])
if run.shared:
    run.finish()
print(run.record.relative_to(paths.OUT))
