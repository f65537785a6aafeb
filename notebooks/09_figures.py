# %% [markdown]
# # 09 Figures: from results only
#
# **Question.** What do the numbers and the predictions look like?
#
# **In:** the predictions of the runs of Table 1, and the registration. **Out:** `figures/<dataset>/`.
# **Time:** seconds; no model is opened.

# %%
from IPython.display import display

from stlib import figures, overlays, paths, show
from stlib.alignment import load_registration
from stlib.cell import parameters
from stlib.results import Run
from stlib.scores import frame, patient_scores
from stlib.tables import load_table

# %% tags=["parameters"]
dataset: str = "toy"  # a file in params/

# %%
p = parameters(globals(), "09_figures")
run = Run("figures", p.dataset).begin()
params = run.params
display(show.settings(params))

# %% [markdown]
# ## Table 1 as dots
#
# One dot per method, its 95 % interval over patients, controls hollow, the paper's number as a cross.

# %%
table = load_table("table1")
drawn = {"table1": figures.table_dots(frame(table, p.dataset, patient_scores(table, p.dataset)))}
display(drawn["table1"])

# %% [markdown]
# ## Maps of single genes: measured, and each method beside it
#
# One colour scale over all panels of a gene. Under each map: the squared error of that gene in that section.

# %%
for gene in params.showcase:
    for protocol in params.folds:
        drawn[f"{gene}_{protocol}"] = figures.gene_across_methods(table, params, protocol, gene)
        display(drawn[f"{gene}_{protocol}"])

# %% [markdown]
# ## The sections of a block before and after alignment
#
# A dataset without folds of the protocol 3d needs no alignment and has none.

# %%
if "3d" in params.folds:
    stack = max(params.sections.values(), key=len)
    drawn["alignment"] = overlays.alignment(params, stack, load_registration(p.dataset))
    display(drawn["alignment"])

# %% [markdown]
# ## Summary
#
# - Every figure is drawn from predictions and results; a change of a label costs seconds.

# %%
for name, figure in drawn.items():
    print(figures.save(figure, paths.FIGURES / p.dataset / f"{name}.png").relative_to(paths.OUT))
print(run.finish().relative_to(paths.OUT))
