"""What methods share that choose ranks from loss curves: hulls, knapsacks, sensitivities."""
