"""What a network is: layers, composition, and the graph behind them."""
