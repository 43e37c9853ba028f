"""What a model of pytorch-forecasting needs around its network, whatever that network is."""
