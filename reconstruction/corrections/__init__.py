# What each training photo has of its own: an error of its pose, an exposure, a colour cast.
