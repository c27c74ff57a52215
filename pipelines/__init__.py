"""The entry points: Prefect flows and the `pedigree` command. Only this package imports Prefect."""
