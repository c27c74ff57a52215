"""The doors: Prefect flows and the `pedigree` command. The only place that imports Prefect."""
