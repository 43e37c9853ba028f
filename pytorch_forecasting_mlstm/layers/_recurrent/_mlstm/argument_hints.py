"""What arguments of other recurrent and attention layers are called here."""

__all__ = ["CELL_HINTS", "LAYER_HINTS"]

_OF_LAYER = "mLSTMLayer has it, and runs cells over whole sequences"

#: Names in `nn.LSTM`, `nn.MultiheadAttention`, `nn.TransformerEncoderLayer`, Keras and xlstm.
LAYER_HINTS = {
    "nhead": "num_heads",
    "n_head": "num_heads",
    "n_heads": "num_heads",
    "nheads": "num_heads",
    "heads": "num_heads",
    "num_attention_heads": "num_heads",
    "attention_head_size": "num_heads",
    "embed_dim": "input_size",
    "embedding_dim": "input_size",
    "d_model": "input_size",
    "input_dim": "input_size",
    "in_features": "input_size",
    "in_channels": "input_size",
    "n_features": "input_size",
    "hidden_dim": "hidden_size",
    "hidden": "hidden_size",
    "units": "hidden_size",
    "out_features": "hidden_size",
    "n_layers": "num_layers",
    "layers": "num_layers",
    "num_blocks": "num_layers",
    "lstm_layers": "num_layers",
    "rnn_layers": "num_layers",
    "dropout_rate": "dropout",
    "drop": "dropout",
    "drop_rate": "dropout",
    "p": "dropout",
    "norm": "layer_norm",
    "layernorm": "layer_norm",
    "use_layer_norm": "layer_norm",
    "residual": "residual_conn",
    "skip": "residual_conn",
    "skip_connection": "residual_conn",
    "multi_head_norm": "norm_heads",
    "batch_major": "batch_first",
    "proj_size": "outputs have hidden_size units, so add an nn.Linear after it",
    "kdim": "queries, keys and values have hidden_size / num_heads units, so leave it out",
    "vdim": "queries, keys and values have hidden_size / num_heads units, so leave it out",
    "bias": "its projections always have a bias, so leave it out",
    "add_bias_kv": "its projections always have a bias, so leave it out",
    "device": "move the module with .to(device)",
    "dtype": "convert the module with .to(dtype)",
    "activation": "its gates are exponential and sigmoid, so leave it out",
    "nonlinearity": "its gates are exponential and sigmoid, so leave it out",
    "dim_feedforward": "it has no feed-forward part, so add one after it",
    "return_sequences": "it returns the output of every step and the last state, so leave it out",
    "return_state": "it returns the output of every step and the last state, so leave it out",
    "context_length": "sequences may have any length, so leave it out",
}

_LAYER_ONLY = ("num_layers", "residual_conn", "batch_first", "bidirectional")

CELL_HINTS = {
    name: _OF_LAYER if hint in _LAYER_ONLY else hint for name, hint in LAYER_HINTS.items()
} | dict.fromkeys([*_LAYER_ONLY, "return_sequences"], _OF_LAYER)
