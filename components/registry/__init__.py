"""Operations on registered versions: promote, trace, compare, reproduce, predict."""
