"""din-export: other frameworks' DIN models become dinserve snapshots, exact to the framework's own scores."""
