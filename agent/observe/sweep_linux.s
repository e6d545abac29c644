// Nothing is here: a package with a file of assembly may declare functions whose bodies are the runtime's.
