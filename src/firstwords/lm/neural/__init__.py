"""Neural language models of letters or pieces: an LSTM and a decoder-only Transformer."""
