# %% [markdown]
# # 00 Tour: the question, the controls and the ideas on one toy tissue
#
# **Question.** What is a prediction of gene expression from a slide, and when has it shown anything?
#
# **In:** the prepared sections and their registration: `make prepare`, or notebooks 01, 02 and 03 from top to
# bottom. **Out:** nothing but what you see here. **Time:** a minute on two cores.

# %%
import numpy as np
from IPython.display import display

from stlib import figures, metrics, overlays, paths, show
from stlib.cell import parameters
from stlib.expression import log_proportion, panel_counts
from stlib.results import Run
from stlib.sections import load_sections
from stlib.splits import folds
from stlib.task import Task, panel_of
from stlib.train import train_fold

# %% tags=["parameters"]
dataset: str = "toy"  # a file in params/

# %%
p = parameters(globals(), "00_tour")
run = Run("tour", p.dataset).begin()
params = run.params
fold = folds(params, "3d")[0]
sections = load_sections(params, params.patient_of)
print(
    f"{params.title}: {len(params.sections)} patients, {len(params.with_slide)} sections with a slide; "
    f"here patient {sections[fold.test[0]].patient} is new"
)

# %% [markdown]
# ## A slide, its spots, and a label
#
# Thin cuts of a tumour are stained and photographed. On some of them the RNA is counted too, spot by spot.
# The label of a spot is the log proportion of each gene of a panel: what share of the spot's counts it has.

# %%
panel = panel_of(params, fold, sections)
section = sections[fold.test[-1]]
gene = next(name for name in (*params.showcase, *panel) if name in panel)
truth = log_proportion(panel_counts(section, panel))
display(overlays.slide_and_spots(params, section, truth[:, panel.index(gene)], f"{gene}, log proportion"))

# %% tags=["nbval-check-output"]
print(
    f"section {section.name}: {len(section)} spots of {section.size_um:.0f} um, {section.pitch_um:.0f} um "
    f"apart; a panel of {len(panel)} genes"
)

# %% [markdown]
# ## A constant already correlates
#
# Let us look at no slide at all, and predict for every spot the mean profile of the other patients. *Across
# the genes of a spot* that is a fair prediction, because some genes are high everywhere. *Across the spots of
# a section* it says nothing, and its correlation does not exist.

# %% tags=["nbval-check-output"]
others = [name for name in fold.train if name not in fold.known]
others = [log_proportion(panel_counts(sections[name], panel)) for name in others]
constant = np.broadcast_to(np.concatenate(others).mean(0), truth.shape)
print(f"pcc_per_spot of a constant: {metrics.pcc_per_spot(constant, truth).mean():.2f}")
undefined = np.isnan(metrics.pcc_per_gene(constant, truth)).sum()
print(f"pcc_per_gene of a constant: undefined for {undefined} of {len(panel)} genes")

# %% [markdown]
# So `pcc_per_gene` is the headline here, and controls like this one are rows of every table.
#
# ## What the neighbour knows, and what the slide knows
#
# One section of the new patient was measured. Its mean tells what is special about the patient
# (`known_mean`); its labels, carried over through the registration, tell what is where (`smooth`). The slide
# tells what can be seen (`ridge`, on frozen features). Both together are `smooth_ridge`, and that is what a
# learned method has to beat.

# %%
found = {}
for member in Run("3d", p.dataset, "controls").members:
    task = Task(params, fold, member.model, "3d", seed=0, folder=run.folder, recipe="")
    found[member.model], _, _ = train_fold(task)

# %% tags=["nbval-check-output"]
print(show.scores({model: metrics.overview(predictions) for model, predictions in found.items()}))

# %%
rows = (found["mean"].obs["section"] == section.name).to_numpy()
column = list(found["mean"].genes).index(gene)
places = found["mean"].obs.loc[rows, ["x_um", "y_um"]].to_numpy()
maps = {model: predictions.prediction[rows, column] for model, predictions in found.items()}
label, size_um = f"{gene}, log proportion", 0.9 * params.spot.pitch_um
display(figures.gene_maps(found["mean"].truth[rows, column], maps, places, size_um, label))

# %% [markdown]
# ## The papers' ideas
#
# - **ASIGN** learns what to carry over from a measured section to its neighbours, and looks at each spot at
#   three levels of context: notebooks 04 and 05, `stlib/models/asign.py`.
# - **MagNet** looks at Visium HD bins with three levels of context, and **PixNet** predicts one dense map that
#   is pooled to spots of any size: notebooks 06 and 13, `stlib/models/magnet.py` and `stlib/models/pixnet.py`.
# - What the printed numbers mean, from counts alone: notebook 10. All methods side by side: notebook 08.

# %% [markdown]
# ## Summary
#
# - A label is a share of counts; much of a spot's profile is the same everywhere, so a constant earns a high
#   `pcc_per_spot`.
# - A neighbouring section and the slide know different things; the mean of two simple controls is the bar.

# %%
print(run.finish().relative_to(paths.OUT))
