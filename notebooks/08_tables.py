# %% [markdown]
# # 08 Tables: ours beside reported, with the controls that give the numbers their meaning
#
# **Question.** What does each method score, patient by patient, and does it beat a constant?
#
# **In:** the predictions of all runs that the table declares. **Out:** `results/<dataset>/<table>` as
# markdown, LaTeX, HTML and CSV. **Time:** seconds; nothing is trained.

# %%
from IPython.display import Markdown, display

from stlib import conditions, layout, paths, render, show
from stlib.cell import parameters
from stlib.results import Run
from stlib.scores import by_patient, frame, patient_scores
from stlib.tables import absences, load_table, runs_needed

# %% tags=["parameters"]
dataset: str = "toy"   # a file in params/
table: str = "table1"  # a file in tables/

# %%
p = parameters(globals(), "08_tables")
run = Run("tables", p.dataset, p.table).begin()
params = run.params
display(show.settings(params))

# %% [markdown]
# ## What the table declares

# %% tags=["nbval-check-output"]
declared = load_table(p.table)
needed = [Run(*key) for key in runs_needed(declared, p.dataset)]
print("\n".join(str(one.folder.relative_to(paths.RUNS)) for one in needed))

# %% [markdown]
# ## The numbers
#
# Computed from predictions alone, by the same lines for every method. Reductions against the papers are
# printed under the table, and so is what is known to be wrong with the reported numbers.

# %% tags=["nbval-check-output"]
scores = patient_scores(declared, p.dataset)
found = frame(declared, p.dataset, scores)
notes = [*params.notes, *absences(declared, p.dataset), *conditions.reductions(needed)]
laid = layout.scores(declared, found, notes)
print(found[["protocol", "label", "metric", "mean"]].round(2).to_string(index=False))

# %%
display(Markdown(render.markdown(laid)))

# %% [markdown]
# ## What it took
#
# Times and memory stand in a file of their own, because they differ from machine to machine.

# %%
report = conditions.report(needed)
display(report)

# %% [markdown]
# ## Summary
#
# - A method that does not beat its control is marked.
# - All of it follows from predictions: a corrected metric costs seconds.

# %%
folder = paths.RESULTS / p.dataset
for suffix, render_as in render.RENDERERS.items():
    written = paths.write_text(folder / f"{p.table}.{suffix}", render_as(laid))
    print(written.relative_to(paths.OUT))
patients = by_patient(declared, p.dataset, scores).round(declared.decimals)
written = paths.write_text(folder / f"{p.table}.patients.csv", patients.to_csv(index=False))
print(written.relative_to(paths.OUT))
paths.write_text(folder / f"{p.table}.runs.csv", report.to_csv(index=False))
print(run.finish().relative_to(paths.OUT))
