"""Elements over WebSockets: protocol, sessions that outlive a connection, server and client. Extra `websocket`."""
