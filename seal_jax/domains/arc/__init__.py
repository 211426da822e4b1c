"""Few-shot learning on the Abstraction and Reasoning Corpus (ARC): grids, training sets, text, votes. Numpy only."""
