"""Working through many units once each: a driver, its crew on this machine or on Ray, the books."""
