# %% [markdown]
# # 07 Ablations: what each part of ASIGN or MagNet buys
#
# **Question.** What does a model lose without one of its parts, in the same patients?
#
# **In:** the predictions of the runs of ASIGN's Tables II, III and IV, or MagNet's 2 and 3. **Out:**
# `results/<dataset>/ablations`, `figures/<dataset>/ablations.png`. **Time:** seconds; nothing is trained.

# %%
from IPython.display import display

from stlib import comparisons, figures, metrics, overviews, paths, show
from stlib.cell import parameters
from stlib.results import Run
from stlib.scores import patient_scores
from stlib.tables import ablations

# %% tags=["parameters"]
dataset: str = "toy"  # a file in params/

# %%
p = parameters(globals(), "07_ablations")
run = Run("ablations", p.dataset).begin()
params = run.params
display(show.settings(params))

# %% [markdown]
# ## Variant minus what it changes, patient by patient
#
# Patients differ more than methods do, so a variant is held against the model that it changes within each
# patient: a variant of ours against ours, one of the paper's against the paper's.
# Seeds are averaged within a patient: its difference is one number, and the interval over patients says
# what another patient may show. The interval over seeds says what another training may show; it does not
# replace the first.

# %%
tables = ablations(p.dataset)
scores = {name: patient_scores(table, p.dataset) for name, table in tables.items()}
found = comparisons.differences(tables, p.dataset, scores)
drawn = overviews.ablations(found, ["pcc_per_gene", "mse"])
display(drawn)

# %% [markdown]
# ## In words
#
# The paired test over patients is corrected for the number of variants (Holm). With few patients it finds
# little: "no difference that these patients and seeds show" is no proof that a part does nothing.

# %% tags=["nbval-check-output"]
words = {name: comparisons.in_words(found, name) for name in ("pcc_per_gene", "mse")}
for name, sentences in words.items():
    print(name, *sentences, sep="\n- ", end="\n\n")

# %% [markdown]
# ## Summary
#
# - A part is worth something if the model without it is worse in the same patients.
# - The tables themselves, beside the reported numbers: `make reproduce-asign-table2` and so on, notebook 08.

# %%
folder = paths.RESULTS / p.dataset
numbers = found.drop(columns="patients").round(4)
n = found["n"].max()
lines = [f"Variant minus what it changes, in the same patients ({n}); seeds are averaged; p after Holm.", ""]
for name, sentences in words.items():
    lines += [f"**{metrics.find(name).label}**", "", *(f"- {sentence}" for sentence in sentences), ""]
print(figures.save(drawn, paths.FIGURES / p.dataset / "ablations.png").relative_to(paths.OUT))
print(paths.write_text(folder / "ablations.csv", numbers.to_csv(index=False)).relative_to(paths.OUT))
print(paths.write_text(folder / "ablations.md", "\n".join(lines)).relative_to(paths.OUT))
print(run.finish().relative_to(paths.OUT))
