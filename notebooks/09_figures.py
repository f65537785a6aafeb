# %% [markdown]
# # 09 Figures: from results only
#
# **Question.** What do the numbers and the predictions look like?
#
# **In:** the predictions of the runs of Table 1, and of PixNet's Table 1 and Figure 4, prepared sections and
# slides, and the registration (`make figures` makes what is missing, and then this notebook). **Out:**
# `figures/<dataset>/`. **Time:** seconds; no model is opened.

# %%
from IPython.display import display

from stlib import comparisons, figures, overlays, overviews, paths, show
from stlib.alignment import load_registration
from stlib.cell import parameters
from stlib.params import load_params, sized
from stlib.profile import panels, profile
from stlib.results import Run
from stlib.scores import by_patient, frame, patient_scores
from stlib.sections import load_sections
from stlib.tables import load_table, rows_for

# %% tags=["parameters"]
dataset: str = "toy"  # a file in params/

# %%
p = parameters(globals(), "09_figures")
run = Run("figures", p.dataset).begin()
datasets = [load_params(name) for name in sized(p.dataset)]  # one, or each of its sizes
ends = {params.name: params.size and f"_{params.size}" for params in datasets}  # of the names of figures
for params in datasets:
    display(show.settings(params))

# %% [markdown]
# ## Table 1 as dots
#
# One dot per method, its 95 % interval over patients (an arrowhead where it goes on beyond the panel), controls
# hollow, the paper's number as a cross.

# %%
table = load_table("table1")
scores = patient_scores(table, p.dataset)
drawn = {"table1": overviews.table_dots(frame(table, p.dataset, scores))}
display(drawn["table1"])

# %% [markdown]
# ## Patient by patient (figure 4 of ASIGN)
#
# The paper's figure does not say what a sample is; here it is a patient. The stars are Welch's test, which
# treats the patients of two methods as different people, as the paper does, and is not corrected. Student's
# paired test (`p_t`) and the exact one of signs hold each patient against himself, and are corrected (Holm) for
# all tests of the table. All of them stand in `asign_figure4.csv`.

# %%
patients = by_patient(table, p.dataset, scores)
tests = comparisons.tests(table, p.dataset, patients)
drawn["asign_figure4"] = overviews.patient_boxes(patients, tests)
display(drawn["asign_figure4"])

# %%
headline = tests[(tests["metric"] == "pcc_per_gene") & (tests["against"] == "ours")]
display(headline[["protocol", "size", "label", "other", "n", "difference", "p_welch", "p_t", "p_t_holm"]].round(3))

# %% [markdown]
# ## Maps of single genes: measured, and each method beside it (figure 5 of ASIGN, figure 3 of MagNet)
#
# One colour scale over all panels of a figure. Under each map: the squared error of the gene in the section.

# %%
placed = {(row.protocol, row.size) for row in rows_for(table, p.dataset)}
for params in datasets:
    for gene in params.showcase:
        for protocol in (one for one in params.folds if (one, params.size) in placed):
            paper = "magnet_figure3" if protocol == "hd" else "asign_figure5"
            name = f"{paper}_{gene}_{protocol}{ends[params.name]}"
            drawn[name] = figures.gene_across_methods(table, params, protocol, gene)
            display(drawn[name])

# %% [markdown]
# ## Genes of cancer at each size (figure 3 of PixNet), and what looks at the slide (figure 4 of PixNet)
#
# The methods of PixNet's Table 1, on slides alone. The encoders are trained where there are weights for them.

# %%
pixnet = load_table("pixnet_table1")
placed = {(row.protocol, row.size) for row in rows_for(pixnet, p.dataset)}
for params in datasets:
    for protocol in (one for one in params.folds if (one, params.size) in placed):
        for gene in params.showcase:
            name = f"pixnet_figure3_{gene}_{protocol}{ends[params.name]}"
            drawn[name] = figures.gene_across_methods(pixnet, params, protocol, gene)
            display(drawn[name])

# %%
encoders = load_table("pixnet_figure4")
if rows_for(encoders, p.dataset):
    found = frame(encoders, p.dataset, patient_scores(encoders, p.dataset))
    drawn["pixnet_figure4"] = overviews.table_dots(found)
    display(drawn["pixnet_figure4"])
else:
    print(f"{p.dataset} has no row of tables/pixnet_figure4.yaml, which compares encoders on bins")

# %% [markdown]
# ## What the dataset holds (figure 6 of ASIGN)
#
# Spots are patches of the finest level; the region and the global level are the cells of a grid that hold a
# spot.

# %% tags=["nbval-check-output"]
sections = {params.name: load_sections(params, params.patient_of) for params in datasets}
counted = {params.name: profile(params, sections[params.name]) for params in datasets}
for name, numbers in counted.items():
    print(name, numbers.to_string(), sep="\n")

# %%
for params in datasets:
    name, title = f"asign_figure6{ends[params.name]}", f"{params.title} {params.size}".strip()
    drawn[name] = overviews.dataset_profile(counted[params.name], f"{title}: sections with a slide")
    display(drawn[name])

# %% [markdown]
# ## The genes that are predicted (figure 8 of ASIGN, figure 4 of MagNet)
#
# By one rule for each dataset and size; a marker may be added by name, and the captions of tables say so.

# %%
for params in datasets:
    genes, everywhere = panels(params, sections[params.name])
    name = f"{'magnet_figure4' if params.size else 'asign_figure8'}{ends[params.name]}"
    drawn[name] = overviews.gene_list(params.panel, genes, everywhere, params.showcase)
    display(drawn[name])

# %% [markdown]
# ## One piece of tissue under the locations of each size (figure 1 of MagNet)

# %%
if len(datasets) > 1:
    drawn["magnet_figure1"] = overlays.sizes(datasets, params.with_slide[0])
    display(drawn["magnet_figure1"])
else:
    print(f"{p.dataset} has locations of one size")

# %% [markdown]
# ## The sections of a block before and after alignment (figure 7 of ASIGN)

# %%
if "3d" in params.folds:
    stack = max(params.sections.values(), key=len)
    drawn["asign_figure7"] = overlays.alignment(params, stack, load_registration(p.dataset))
    display(drawn["asign_figure7"])
else:
    print(f"{p.dataset} has no folds of the protocol 3d")

# %% [markdown]
# ## Summary
#
# - Every figure is drawn from predictions, results and prepared data; a change of a label costs seconds.

# %%
for name, figure in drawn.items():
    print(figures.save(figure, paths.FIGURES / p.dataset / f"{name}.png").relative_to(paths.OUT))
text = tests.to_csv(index=False, float_format="%.3g")
print(paths.write_text(paths.FIGURES / p.dataset / "asign_figure4.csv", text).relative_to(paths.OUT))
print(run.finish().relative_to(paths.OUT))
