"""Operations on a project: restore and pin data, add and list models, clean up."""
