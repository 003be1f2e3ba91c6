"""Words both daemons share: settings, catalogue, neuron wire types, errors."""
