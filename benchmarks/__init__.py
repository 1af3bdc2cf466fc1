"""What the models and the loop cost, measured on the machine at hand."""
