# %% [markdown]
# # 11 Your slides: a trained model on a slide that is in no dataset
#
# **Question.** What does a model say of my own slide, and may I believe it?
#
# **In:** the prepared sections of a dataset, which train the model; one slide, and its um per px; the spots
# that were measured on it, if any were. **Out:** predictions as `.h5ad` for scanpy and squidpy, and what was
# measured beside them; maps of genes in `figures/<dataset>/`; of bins also all of the slide as Zarr.
# **Time:** that of one training, once; then about a minute a slide on the toy.

# %%
from pathlib import Path

from IPython.display import display

from stlib import figures, metrics, paths, show, slide_maps, slide_predictions, slide_scores
from stlib.cell import parameters
from stlib.checkpoint import state_hash
from stlib.genemaps import write_maps
from stlib.measured import measured_spots, recognised
from stlib.new_slide import adopt, beside, known_section, locations, sampled, scale_of, training_scale
from stlib.results import Run
from stlib.sections import content_hash, load_sections
from stlib.splits import whole
from stlib.task import Task, feed_of
from stlib.train import learn, predict

# %% tags=["parameters"]
dataset: str = "toy"  # a file in params/: the model is trained on it
model: str = "asign"  # a file in stlib/models/, with @variant if wanted
slide: str = ""       # file of the slide; empty: the dataset's first one, whose patient is then left out
um_per_px: str = ""   # scale of the slide, a number; empty: as the tags of the file say
known: str = ""       # a measured section of the same block, whose expression the model is shown
spots: str = ""       # what was measured on the slide: an .h5ad, or outs of Space Ranger; it is scored
seed: int = 0         # of weights, order of batches and augmentation

# %%
p = parameters(globals(), "11_your_slides")
run = Run("slides", p.dataset, p.model, seed=p.seed).begin()
params = run.params
protocol = "3d" if p.known else "2d" if "2d" in params.folds else "hd"
display(show.settings(params, run))

# %% [markdown]
# ## The slide, at the scale of the training sections
#
# Patches are measured in pixels, so the model knows one um per px. A slide of another scale is rewritten, one
# of unknown scale is refused: a guess would show in every number and in no error. Predicted are the spots
# that were measured (`spots`), or else an array of places, laid over the tissue.

# %%
training = load_sections(params, params.with_slide)
file = Path(p.slide) if p.slide else paths.slide_file(params.name, params.with_slide[0])
found = scale_of(file, p.um_per_px)
wanted = training_scale(training)
new = adopt(params, file, found, wanted)
like = training[params.with_slide[0]]
if p.spots:
    every = measured_spots(params, new, file, Path(p.spots), like)
    new = recognised(params, new, every, load_sections(params, params.patient_of))
else:
    every = locations(params, new, like)
section = sampled(params, every)

# %% tags=["nbval-check-output"]
print(f"{file.name}: {found.round(4).tolist()} um per px; the model is trained at {wanted:.4g}")
if p.spots:
    print(f"{len(every)} spots were measured, {every.facts['on_tissue']:.0%} of them on tissue")
else:
    print(f"{len(every)} locations of {every.size_um:g} um, {every.pitch_um:g} um apart, lie on tissue")
print(f"{len(section)} of them are predicted as a table")

# %% [markdown]
# Where a neighbour in the block was measured (`known`), the slide is aligned to it, and the protocol is 3d:
# the model is shown the neighbour's expression.

# %%
shown_to_it, aligned = (), None
if p.known:
    shown_to_it = (known_section(params, p.known, new),)
    section, aligned = beside(params, section, training[p.known])
    print({name: "aligned" if found.ok else found.message for name, found in aligned.items()})

# %% [markdown]
# ## The model: one training on all patients
#
# The folds of a run each miss a patient, and no fold is better than another. So none of their checkpoints is
# taken: the model is trained once more, on every patient. Where at least three train, one of them is held
# back first, to choose the epoch. Only if the slide is one of the dataset's own, its patient is left out.

# %% tags=["nbval-check-output"]
fold = whole(params, protocol, new.patient)
print(show.folds([fold]).drop(columns=["known", "test"]).to_string())
print(f"left out, because the slide shows it: patient {new.patient}" if new.patient else "the slide is new")

# %%
measured = Run(protocol, p.dataset, p.model, seed=p.seed)
task = Task(params, fold, p.model, protocol, p.seed, run.folder / "checkpoints" / protocol, measured.recipe)
fed = feed_of(task)
genes = slide_scores.measured_genes(section, fed.panel, Path(p.spots)) if p.spots else fed.panel
trained, history, fabric = learn(task, fed)
display(figures.training({run: history.assign(fold=fold.name)}))

# %% [markdown]
# What to expect of it: the scores of the same model for patients that it did not see, where that run stands.

# %%
if measured.complete():
    print(show.scores({p.model: metrics.overview(measured.train()[0])}))
else:
    again = f"make train MODEL={p.model} DATASET={p.dataset} PROTOCOL={protocol}"
    print(f"not measured yet: `{again}` tells what this model is worth for unseen patients")

# %% [markdown]
# ## Is the slide like those that the model knows?
#
# The mean look of its spots, against that of the training sections, in standard deviations of a spot. The
# measure for *far* is how far each training patient lies from the others.

# %%
learned = {name: training[name] for name in (*fold.train, *fold.validation)}
alike = slide_predictions.compare(params, section, learned)
for likeness in alike:
    print(likeness)

# %% [markdown]
# ## Predictions, location by location

# %%
feed = feed_of(task, (section,), aligned)
values = predict(trained, feed, (*shown_to_it, section.name), shown_to_it, fabric)[section.name]
name = "-".join([new.title, p.model, *shown_to_it, *(["spots"] if p.spots else [])])
weights = state_hash(trained)
about = {
    "model": p.model, "protocol": protocol, "trained_on": list(learned), "seed": p.seed,
    "weights": weights, "shown": list(shown_to_it), "likeness": [str(likeness) for likeness in alike],
}  # fmt: skip
table = slide_predictions.as_table(params, new, section, feed.panel, values, about)

# %% [markdown]
# Where spots were measured, the model is scored on this slide: it never saw their counts. The constants
# beside it, the mean over the training and that of the known section, say what a number is worth. One slide
# is one patient, so that there is no spread. Where genes of the panel were not measured, both sides are
# proportions within the others.

# %% tags=["nbval-check-output"]
if p.spots:
    lacking = " ".join(gene for gene in feed.panel if gene not in genes) or "none"
    print(f"{len(genes)} of the panel's {len(feed.panel)} genes were measured; lacking: {lacking}")
    held = {p.model: values} | slide_scores.constants(task, section, aligned, shown_to_it)
    compared = {one: slide_scores.beside(section, feed.panel, genes, said) for one, said in held.items()}
    print(show.scores({one: metrics.overview(both) for one, both in compared.items()}))
    slide_scores.write_beside(table, compared[p.model])
print(table)

# %%
shown = [gene for gene in params.showcase if gene in genes] or genes[:2]
predicted = table.to_df("predicted" if p.spots else None)[shown]
truth = table.to_df("measured")[shown] if p.spots else None
drawn = {name: slide_maps.over_slide(params, section, predicted, truth)}
display(drawn[name])

# %% [markdown]
# ## All of the slide
#
# Where a dataset keeps a sample of its bins, the table holds a sample, too, and the rest goes to chunked
# Zarr, tile by tile. A network that maps the slide densely also writes maps of genes for QuPath and napari.

# %%
if params.sample is not None:
    places = content_hash(every)[:8]
    target = run.folder / f"{new.section}-{places}-{weights[:8]}.zarr"  # of this slide, by this model
    store = slide_predictions.predict_whole(trained, params, every, section, target)
    print(target.relative_to(paths.OUT))
    drawn[f"{name}-whole"] = slide_maps.whole(params, every, store, shown)
    display(drawn[f"{name}-whole"])
if trained.UNIT == "window":
    tiles = slide_predictions.dense_tiles(trained, params, section)
    maps = write_maps(trained, tiles, shown, section.um_per_px, run.folder / f"{name}.ome.tif")
    print(maps.relative_to(paths.OUT))

# %% [markdown]
# ## Summary
#
# - `scanpy.pl.spatial(adata, color=gene)` draws the table; places are pixels of the slide as it came.
# - Values are log proportions within the panel, `uns["about"]` says of which model and training.
# - With `spots` the layers `measured` and `predicted` stand beside each other; scores are of this slide.
# - Without, nothing here was scored: what the model is worth was measured on other patients.

# %%
print(slide_predictions.write_table(run.folder / f"{name}.h5ad", table).relative_to(paths.OUT))
for title, figure in drawn.items():
    target = paths.FIGURES / p.dataset / "slides" / f"{title}.png"
    print(figures.save(figure, target).relative_to(paths.OUT))
unlike = [likeness.features for likeness in alike if likeness.unlike]
print(run.finish(slide=new.title, unlike=unlike).relative_to(paths.OUT))
