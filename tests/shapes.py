"""Shapes of linear layers, for tests with torch and without: name, leading dimensions of x, in, out."""

LINEAR_SHAPES = (
    ("ordinary", (8,), 16, 4),
    ("odd", (7,), 5, 3),
    ("one_of_each", (1,), 1, 1),
    ("rank_1", (), 5, 3),
    ("rank_3", (2, 3), 5, 7),
    ("rank_4", (2, 1, 3), 4, 5),
    ("empty_batch", (0,), 5, 3),
    ("empty_batch_rank_3", (2, 0), 5, 3),
    ("no_features", (3,), 0, 2),
    ("no_outputs", (3,), 2, 0),
    ("no_outputs_rank_3", (2, 3), 2, 0),
)
