"""Does de-duplication lower what a diffusion model memorizes? README.md in this folder holds the plan."""
