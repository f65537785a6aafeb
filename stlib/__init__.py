"""Predict spatial gene expression from H&E slides: a thin library under the notebooks.

The path of the data, and the module that holds each step:

what a dataset is      `params` (strict YAML, read into `records`), `datasets/` (one reader each)
its files              `manifest` and `download`, `archive` and `encrypted` (some members), `counts` and
                       `tenx` (matrices), `bin_folder` (of Visium HD), `annotated` (AnnData), `slides_beside`
a lab's own folder     `survey_layout` (what lies in it), `survey` (the params file that follows),
                       `survey_text` (in words)
its places             `array`, `visium` (and its spots) and `bins` (the grids), `orientation` (of slides)
bins into locations    `locations` (which make which, and are kept), `binned` (their sums)
the toy tissue         `toy` (the truth behind it), `toy_paint` (its slides), `toy_bins` (as Visium HD)
one section on disk    `sections` (counts and positions, as `h5ad`), `slide` (of any of `images`), `paths`
preparation            `expression`, `panels` (of genes), `features` (cached), `graph`, and across sections
                       `stack` and `overlap` (of spots)
encoders               `encoders`, `pathology` (by name), `weights` (from files), `stain` (without weights)
serial sections        `registration` (finds the maps), `alignment` (keeps and applies them), `views` and
                       `stages` (scores), `register_linear`, `register_smooth`, `register_ants` (steps)
one protocol for all   `splits` (folds), `task` (one fold, one model), `batch`, `fields`, `feed` and
                       `dense_feed` (what it is fed), `blocks` (pieces of tissue), `train`, `checkpoint`,
                       `transfer` and `scales` (to other locations)
methods                `models/` (one file each), `layers`, `losses`, `linear`
known labels           `known` (what they let expect), `kriging`, `propagation`, `smoothing`
whole slides           `array_tiles` (cut), `wholeslide` (predicted)
slides of one's own    `new_slide` (scale, copy, block, locations), `rescale`, `likeness` (to training
                       slides), `slide_predictions` and `slide_maps` (for others to read), `measured` (spots
                       on it), `slide_scores` (what those say of predictions)
dense maps             `footprints` (what locations cover), `pooling` (their sums), `windows` (to train),
                       `tiles` (to predict), `genemaps` (whole slides on disk)
what methods look up   `retrieval` (training locations), `gene_text` (what a language model says)
runs                   `steps` (which there are), `results` (where and when done), `required` (what comes
                       before), `fingerprint` (of what made), `predictions`, `machine` (where), `cell` (the
                       parameters of a notebook)
many at once           `execute` (a notebook, by one process at a time), `ranks` and `devices` (one training
                       in several), `lease` (a GPU for each), `reading` (slides, for a GPU)
numbers                `metrics`, `statistics`, `audit` (from counts alone), `comparisons` (by patient),
                       `ceiling` (what counts allow), `genewise` (each gene), `regions` (of the tissue),
                       `jackknife` (the interval of one patient)
flaws of released code `cohort` (the counts they are shown on), `flaws` (each in a few lines), `flaw_table`
tables                 `tables` (declared), `scores`, `layout`, `render`, `conditions` (of the runs)
what stands            `contents` (of the papers' tables and figures)
what a step costs      `bench` (measures), `cost` (its table)
figures                `plots`, `figures`, `overlays` (tissue), `charts`, `overviews` (numbers), `profile`
pages                  `show`, `rendered` (for browsing), `site` (all of them, linked), `report`
"""
