"""One module a command of `retina-ops`, each with ``run(arguments)``; imported when it is called."""
