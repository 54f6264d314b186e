"""The Lagrangian optimum of predicted losses, in closed form."""
