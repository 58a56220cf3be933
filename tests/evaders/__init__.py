"""Programs that each try one trick to get around the gateway. Run by `driver`."""
