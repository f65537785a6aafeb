"""Predict spatial gene expression from H&E slides: a thin library under the notebooks.

The path of the data, and the module that holds each step:

what a dataset is      `params` (strict YAML), `datasets/` (one reader each), `toy`, `download`
one section on disk    `sections` (counts and positions), `slide` (the image), `paths` (the folders)
preparation            `expression`, `features`, `graph`, `registration`
one protocol for all   `splits` (folds), `batch` (what a model is fed), `train` (the one loop)
methods                `models/` (one file each), `layers`, `losses`
numbers                `results` (runs and predictions), `metrics`, `tables`, `plots`
"""
