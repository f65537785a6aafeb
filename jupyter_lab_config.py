"""JupyterLab for this checkout: a percent script opens as a notebook, and keeps no .ipynb beside it."""

c = get_config()  # noqa: F821 - JupyterLab defines it
c.ServerApp.contents_manager_class = "jupytext.TextFileContentsManager"
