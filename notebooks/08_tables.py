# %% [markdown]
# # 08 Tables: ours beside reported, with the controls that give the numbers their meaning
#
# **Question.** What does each method score, patient by patient, and does it beat a constant?
#
# **In:** the predictions of all runs that the table declares (`make reproduce-table1` makes those of Table 1,
# and then this notebook). **Out:** `results/<dataset>/<table>` as
# markdown, LaTeX, HTML and CSV; beside it every metric, the paired tests, each gene, and the regions of the
# tissue where they are labelled. **Time:** seconds; nothing is trained.

# %%
import json

from IPython.display import Markdown, display

from stlib import comparisons, conditions, genewise, layout, paths, regions, render, show
from stlib.cell import parameters
from stlib.results import Run
from stlib.scores import by_patient, ceilings, frame, patient_scores, reachable, with_every_metric
from stlib.sections import load_prepared
from stlib.tables import absences, load_table, runs_needed, shown

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

# %%
every = with_every_metric(declared)
scores = patient_scores(every, p.dataset)
patients = by_patient(declared, p.dataset, scores)

# %% [markdown]
# ## What the counts allow
#
# The ceiling: what the expected label given the true rate would score, estimated from the counts of the
# prepared sections. Where they are not at hand, nothing is said of it, and the notes say so.

# %%
sections = {params.name: load_prepared(params) for params in shown(declared, p.dataset)}
allowed = reachable(declared, p.dataset, sections)
top = ceilings(every, allowed)

# %% [markdown]
# ## Which genes are predicted at all, and who beats whom
#
# Each gene's correlation within sections against chance, with the false discoveries among its row's genes
# controlled. Each method against the best control of its part of the table and against ours, in pairs of
# patients.

# %%
genes = genewise.genes(declared, p.dataset, allowed)
tests = comparisons.tests(declared, p.dataset, patients)
said = comparisons.said_of_tests(tests, declared.metrics[0].metric) + genewise.predictable(genes)
by_region = regions.scores(declared, p.dataset, sections)

# %% tags=["nbval-check-output"]
found = frame(declared, p.dataset, scores, top)
notes = [*params.notes, *absences(declared, p.dataset), *conditions.reductions(needed)]
notes += conditions.unreachable(sections)
laid = layout.scores(declared, found, notes, said, conditions.settings(needed))
first = found[found["metric"].isin([column.metric for column in declared.metrics[:2]])]
means = first.set_index(["protocol", "setting", "size", "label", "metric"])["mean"].unstack(sort=False)
print(means.round(2).to_string(na_rep="undefined"))

# %% [markdown]
# Controls and ceilings are in italics; bold is the best method of its part of the table, and ‡ one that is no
# better than the best control there.

# %%
display(Markdown(render.markdown(laid)))

# %% [markdown]
# ## What it took
#
# Times and memory stand in a file of their own, because they differ from machine to machine.

# %%
report = conditions.report(needed)
display(report.drop(columns="fingerprint").replace("", None).dropna(axis=1, how="all"))

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
beside = {"patients": patients, "metrics": frame(every, p.dataset, scores, top), "tests": tests}
beside |= {"genes": genes, "regions": by_region}
for name, numbers in beside.items():
    text = render.plain(numbers, declared.decimals)
    print(paths.write_text(folder / f"{p.table}.{name}.csv", text).relative_to(paths.OUT))
written = paths.write_text(folder / f"{p.table}.runs.csv", report.to_csv(index=False))
print(written.relative_to(paths.OUT))
text = json.dumps(conditions.made(needed, sections), indent=1) + "\n"
print(paths.write_text(folder / f"{p.table}.made.json", text).relative_to(paths.OUT))
print(run.finish().relative_to(paths.OUT))
