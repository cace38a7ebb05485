"""A receiver's check by the library of the Standard Webhooks project: reads {"secret", "headers", "body"} as JSON from
its input and prints what the library takes for true, or why it refuses."""

import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError

given = json.load(sys.stdin)
try:
    print(json.dumps({"taken": Webhook(given["secret"]).verify(given["body"], given["headers"])}))
except WebhookVerificationError as error:
    print(json.dumps({"refused": str(error)}))
