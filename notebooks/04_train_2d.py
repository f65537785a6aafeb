# %% [markdown]
# # 04 Train, protocol 2d: predict an unseen patient from slides alone
#
# **Question.** What can be read off the slide of a patient of whom nothing was measured?
#
# **In:** patches, features and graphs of 02; counts of the training patients. **Out:** predictions for every
# test spot, from a model that never saw the patient. **Time:** about a minute per model on the toy and two
# cores; on her2st a GPU is wanted.

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
p = parameters(globals(), "04_train_2d")
run = Run("2d", p.dataset, p.model, p.setting, p.seed).begin()
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
# Folds are made of patients. Panel, scale and every choice come from training patients; the validation
# patient picks the epoch, then the model is trained anew on all of them.

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
# - Every test spot was predicted by a model that saw neither its patient's slides nor counts.
# - Scores here are for the reader; tables are computed from the predictions by 08.

# %%
for member in run.members:
    member.save(predictions[member], history[member])
if run.shared:
    run.finish()
print(run.record.relative_to(paths.OUT))
