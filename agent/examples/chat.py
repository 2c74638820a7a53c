#!/usr/bin/env python3
"""The chat of chat.c, from proto/agent.md alone: python3-zmq, python3-msgpack. usage: chat.py [ENDPOINTS]"""
import collections, io, json, os, random, sys, time
import msgpack, zmq

HELLO, WELCOME, CREDIT, NODE, BYE, ERROR, OK, EMIT, HANDLE = 1, 2, 3, 4, 5, 6, 7, 16, 18
CALL, CONNECT, DISCONNECTED, WINDOW, INSTANCE = 66, 67, 68, 1 << 20, os.urandom(8).hex()
REGISTRATION = {'namespaces': ['/chat'], 'events': ['say'], 'life': ['connect', 'disconnect']}
endpoints = (sys.argv[1] if len(sys.argv) > 1 else 'tcp://127.0.0.1:7800').split(',')
waiting = collections.deque()  # emits that there is no credit for
def emit(event, *args):
    if len(waiting) < 10000:
        waiting.append(msgpack.packb([EMIT, 0, '/chat', ['lobby'], event, json.dumps(args), {}]))

def options(r, at):  # may be left out
    return (r[at:] or [{}])[0] or {}

def on_record(r):
    """The chat itself: what is to be answered, or None."""
    if r[0] == CONNECT:  # id, reg, nsp, sid, auth
        name = json.loads(r[5]).get('name')
        if not isinstance(name, str) or not name:
            return [ERROR, r[1], 'nameless', 'who are you?']
        emit('joined', name)
        return [OK, r[1], {'user': json.dumps(name), 'rooms': ['lobby']}]
    if r[0] == CALL:  # id, reg, nsp, sid, event, args, options
        args, user = json.loads(r[6]), json.loads(options(r, 7).get('user', 'null'))
        if not args or not isinstance(args[0], str):
            return [ERROR, r[1], 'say', 'say what?']
        emit('said', user, args[0])
        return [OK, r[1], {'args': '[{"ok":true}]'}]
    if r[0] == DISCONNECTED:  # reg, nsp, sid, reason, options
        emit('left', json.loads(options(r, 5).get('user', 'null')))
    elif r[0] == OK and r[1] == 1:
        print('ready', flush=True)
    elif r[0] == ERROR:
        print(*r[1:4], flush=True)

def serve(endpoint):
    """One connection, until it is over; True when there was a WELCOME."""
    sock = zmq.Context.instance().socket(zmq.DEALER)
    sock.linger = 0
    sock.connect(endpoint)
    sock.send(msgpack.packb([HELLO, 1, 'chat', INSTANCE, WINDOW, {'about': 'chat.py'}]))
    sent = got = credit = said = 0
    beat, timeout, welcome, heard = 0.3, 1.0, False, time.monotonic()

    def send(frame):
        nonlocal sent
        sock.send(frame)
        sent += len(frame)
    while time.monotonic() - heard < timeout:
        if sock.poll(beat * 1000):
            frame, heard = sock.recv(), time.monotonic()
            got += len(frame) if welcome else 0
            for r in msgpack.Unpacker(io.BytesIO(frame)):
                if r[0] == WELCOME:
                    welcome, credit = True, r[3]
                    beat, timeout = r[4]['heartbeat_ms'] / 1000, r[4]['timeout_ms'] / 1000
                    send(msgpack.packb([HANDLE, 1, REGISTRATION]))
                elif r[0] == BYE or r[0] == ERROR and (not welcome or r[2] == 'hello'):
                    return welcome
                elif r[0] == CREDIT:
                    credit = r[1]
                elif (answer := on_record(r)):
                    send(msgpack.packb(answer))
                if r[0] in (WELCOME, NODE):
                    endpoints.extend(e for peer in r[-1].get('peers', []) for e in peer[1:] if e not in endpoints)
            while waiting and sent < credit:
                send(waiting.popleft())
        if welcome and time.monotonic() - said >= beat:
            said = time.monotonic()
            send(msgpack.packb([CREDIT, got + WINDOW]))
    return welcome
attempts = 0
while True:  # the next node, sooner after one that was there
    endpoints.append(endpoints.pop(0))
    attempts = 0 if serve(endpoints[-1]) else attempts + 1
    time.sleep(min(5, 0.1 * 2 ** attempts) * random.uniform(0.5, 1))
