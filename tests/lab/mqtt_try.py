"""One publish or one read by paho, in words: ARGV = host user password pub|get topic [payload [ca file]]."""

from __future__ import annotations

import sys
import threading

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

host, user, password, what, topic, payload, ca = (*sys.argv[1:], "hello", "")[:7]
if len(sys.argv) == 7:
    ca = ""
done = threading.Event()
said: list[str] = []


def say(text: str) -> None:
    said.append(text)
    done.set()


def on_connect(client: Client, _: object, flags: object, reason: object, properties: object) -> None:
    if getattr(reason, "is_failure", False):
        say(f"refused: {reason}")
    elif what == "pub":
        client.publish(topic, payload, qos=1, retain=True)
    else:
        client.subscribe(topic, qos=1)


def on_message(client: Client, _: object, message: MQTTMessage) -> None:
    say(f"message {message.payload.decode()}")


client = Client(CallbackAPIVersion.VERSION2)
client.username_pw_set(user, password)
client.connect_timeout = 2.0
client.on_connect = on_connect
client.on_message = on_message
client.on_publish = lambda *_: say("published")
if ca:
    client.tls_set(ca)
try:
    client.connect(host, 8883 if ca else 1883)
except OSError as error:
    say(f"unreachable: {error}")
client.loop_start()
done.wait(1.0 if what == "get" else 4.0)
client.loop_stop()
client.disconnect()
print(said[0] if said else "nothing")
