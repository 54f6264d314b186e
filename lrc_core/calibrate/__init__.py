"""What the calibration text tells of a model: second moments of every linear's inputs, and factors made from them."""
