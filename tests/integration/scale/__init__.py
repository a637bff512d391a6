"""Several processes of one controller, as an operator would run them."""
