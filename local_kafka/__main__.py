import sys

from local_kafka import main

sys.exit(main())
