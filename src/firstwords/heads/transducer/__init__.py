"""Transducer head: predictor, joiner, full and pruned loss; see the modules of this room."""
