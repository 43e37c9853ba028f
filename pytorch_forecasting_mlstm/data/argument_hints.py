"""What a dataset needs instead of arguments of other libraries, and of objects of v2."""

from .._v2_objects import without_v2

__all__ = ["DATASET_HINTS", "rejecting_v2"]

#: Decorates methods of a dataset.
rejecting_v2 = without_v2(
    "BatchedTimeSeriesDataSet", data="a DataFrame", dataset="a TimeSeriesDataSet"
)

#: Names in neuralforecast, darts, gluonts and Prophet.
DATASET_HINTS = {
    "df": "data",
    "table": "data",
    "unique_id": "group_ids",
    "id_col": "group_ids",
    "item_id": "group_ids",
    "groups": "group_ids",
    "group_id": "group_ids",
    "series": "group_ids",
    "ds": "time_idx",
    "time_col": "time_idx",
    "time": "time_idx",
    "timestamp": "time_idx",
    "y": "target",
    "targets": "target",
    "target_col": "target",
    "target_cols": "target",
    "h": "max_prediction_length",
    "horizon": "max_prediction_length",
    "prediction_length": "max_prediction_length",
    "output_chunk_length": "max_prediction_length",
    "output_size": "max_prediction_length",
    "input_size": "max_encoder_length",
    "context_length": "max_encoder_length",
    "input_chunk_length": "max_encoder_length",
    "lookback": "max_encoder_length",
    "history": "max_encoder_length",
    "hist_exog_list": "time_varying_unknown_reals",
    "past_covariates": "time_varying_unknown_reals",
    "futr_exog_list": "time_varying_known_reals",
    "future_covariates": "time_varying_known_reals",
    "stat_exog_list": "static_reals",
    "static_covariates": "static_reals",
    "scaler": "target_normalizer",
    "scaler_type": "target_normalizer",
    "normalizer": "target_normalizer",
    "allow_missings": "allow_missing_timesteps",
    "allow_missing": "allow_missing_timesteps",
    "weights": "weight",
    "freq": "time_idx counts periods as integers, so leave it out",
    "frequency": "time_idx counts periods as integers, so leave it out",
    "batch_size": "it is an argument of to_dataloader()",
    "num_workers": "it is an argument of to_dataloader()",
}
