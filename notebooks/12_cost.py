# %% [markdown]
# # 12 Cost: what a training step takes
#
# **Question.** How many parameters, operations, bytes and seconds does a step of each method take, and how
# do they grow with the patch?
#
# **In:** prepared sections (`make prepare`), the declaration of the table. **Out:**
# `results/<dataset>/<table>`. **Time:** minutes; nothing is learned: encoders have random weights, patches
# are noise.

# %%
import torch
from IPython.display import Markdown, display

from stlib import cost, paths, render, show
from stlib.cell import parameters
from stlib.machine import device
from stlib.results import Run
from stlib.tables import absences, costs_for, load_costs

# %% tags=["parameters"]
dataset: str = "toy"          # a file in params/
table: str = "asign_tables1"  # a file in tables/, of the kind `costs`

# %%
p = parameters(globals(), "12_cost")
run = Run("cost", p.dataset, p.table).begin()
params = run.params
display(show.settings(params, run))

# %% [markdown]
# ## Steps, as they were measured
#
# Each method has the settings of its own paper, not those that the dataset reduces.

# %%
declared = load_costs(p.table)
measured = cost.measure(declared, params)
labels = [row.label for row in costs_for(declared, params)]
display(measured.assign(row=[labels[place] for place in measured["row"]]).round(3))

# %% [markdown]
# ## Lines through small batches
#
# A CPU takes steps of a few spots where the table's batch would take too long. How far the measured values
# lie from the line says how far to trust it.

# %%
lines = cost.lines(declared, params, measured)
print("\n".join(lines) or "every row was measured at the table's batch")

# %% [markdown]
# ## The table

# %%
found = cost.frame(declared, params, measured)
on = f"{device()}, {torch.get_num_threads()} threads"
notes = [f"Measured on {on}, in float32.", *absences(declared, p.dataset), *lines]
laid = cost.layout(declared, found, notes)
display(Markdown(render.markdown(laid)))

# %% [markdown]
# ## Summary
#
# - Operations and memory belong to the model; seconds belong to the machine as well.
# - What is marked ≈ was not measured at the table's batch.

# %%
folder = paths.RESULTS / p.dataset
for suffix, render_as in render.RENDERERS.items():
    print(paths.write_text(folder / f"{p.table}.{suffix}", render_as(laid)).relative_to(paths.OUT))
print(run.finish().relative_to(paths.OUT))
