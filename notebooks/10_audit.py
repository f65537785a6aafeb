# %% [markdown]
# # 10 Audit: what the published numbers mean
#
# **Question.** How good is a prediction that looks at no image?
#
# **In:** raw counts alone; no slide is needed. **Out:** `results/<dataset>/audit.csv` and `.md`. **Time:**
# under a minute for the 36 sections of her2st.

# %%
import hashlib

from IPython.display import display

from stlib import audit, datasets, paths, show
from stlib.cell import parameters
from stlib.expression import common_genes, top_mean_panel
from stlib.results import Run

# %% tags=["parameters"]
dataset: str = "toy"     # a file in params/
data: str = ""           # folder with a local copy of the raw files; empty: the house's own
missing: str = "refuse"  # where a section's files are absent: refuse, or skip (the numbers are then others)

# %%
p = parameters(globals(), "10_audit")
run = Run("audit", p.dataset).begin()
params = run.params
display(show.settings(params))

# %% [markdown]
# ## The counts are those of the papers

# %% tags=["nbval-check-output"]
sections = audit.read_counts(params, datasets.raw_folder(params, p.data), p.missing)
print(datasets.compare(datasets.totals(sections), params.expect))

# %% [markdown]
# ## The panel is the papers' panel
#
# The genes of the highest mean raw count over all sections, among those common to all: the papers' rule,
# which looks at test patients too. `strict` runs do not.

# %% tags=["nbval-check-output"]
panel = top_mean_panel(sections.values(), params.panel.size)
digest = hashlib.sha256(("\n".join(panel) + "\n").encode()).hexdigest()
wanted = params.expect.panel_sha256 if params.expect else None
print(f"{len(panel)} of {len(common_genes(sections.values()))} common genes, first: {' '.join(panel[:8])}")
differs = f"sha256 {digest[:12]}, published: {wanted}"
print("it is the published panel, gene by gene" if digest == wanted else differs)

# %% [markdown]
# ## Constants, scored as the papers score
#
# A constant predicts one profile for every spot. `pcc_per_spot` correlates across the genes *of a spot*: what
# is high there is mostly the profile that all spots share. Across the spots of a section a constant has no
# correlation at all.

# %% tags=["nbval-check-output"]
table = audit.control_table(params, sections, panel)
print(table.round(4).to_string(index=False))

# %% [markdown]
# ## Beside what is printed

# %%
printed = audit.reported(p.dataset)
display(printed)

# %% [markdown]
# ## Summary
#
# - Every number above comes from counts; no image was opened.
# - A method has shown something only where it beats these rows.

# %%
folder, mark = paths.RESULTS / p.dataset, "" if len(sections) == len(params.patient_of) else ".incomplete"
written = paths.write_text(folder / f"audit{mark}.csv", table.round(6).to_csv(index=False))
print(written.relative_to(paths.OUT))
print(paths.write_text(folder / f"panel{mark}.txt", "\n".join(panel) + "\n").relative_to(paths.OUT))
print(paths.write_text(folder / f"audit{mark}.md", audit.markdown(table, printed)).relative_to(paths.OUT))
print(run.finish().relative_to(paths.OUT))
