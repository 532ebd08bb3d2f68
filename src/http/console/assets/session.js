// Who is signed in. The key lives in this variable and nowhere else: browsers write what pages store to
// disk, and send cookies to whoever knows how to ask.

let bearer = null;

export const signIn = (key) => { bearer = key.trim(); };
export const signOut = () => { bearer = null; };
export const hasKey = () => bearer !== null;
export const authorization = () => (bearer === null ? {} : { Authorization: `Bearer ${bearer}` });

/** What the server says of the caller. */
export class Caller {
  constructor({ identity, roles, may, authentication_required }) {
    Object.assign(this, { identity, roles, mustSignIn: authentication_required && roles.length === 0 });
    this.routes = new Set(may);
  }

  may(method, path) {
    return this.routes.has(`${method} ${path}`);
  }

  is(role) {
    return this.roles.includes(role);
  }
}
