import * as peer from 'amazon-cognito-identity-js'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { cognitoSrpAuthorizer } from '../../src/session/authorizers/cognito-srp.ts'
import { fakeClock } from '../support/clock.ts'
import { CLIENT_ID, type CognitoServer, cognitoServer, POOL } from '../support/cognito-server.ts'
import { contextOf } from '../support/oauth.ts'
import { dialer, errorOf } from '../support/servers.ts'

const USER = 'ann@example.test'
const way = (server: CognitoServer, password: string) =>
  cognitoSrpAuthorizer({
    poolId: POOL,
    clientId: CLIENT_ID,
    endpoint: server.origin,
    userName: USER,
    password: async () => password,
  })

describe('beside the real client', () => {
  const a = Uint8Array.from({ length: 128 }, (_, index) => (index * 7 + 1) % 256)
  const salt = '9a0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d'
  const fixed = { b: 0x123456789abcdef0123456789abcdef0123456789abcdefn, salt, block: Buffer.alloc(40, 5) }

  /** Logs in with the published package. */
  const peerLogin = (endpoint: string, password: string) =>
    new Promise<string>((resolve, reject) => {
      const Pool = new peer.CognitoUserPool({ UserPoolId: POOL, ClientId: CLIENT_ID, endpoint })
      const user = new peer.CognitoUser({ Username: USER, Pool })
      const details = new peer.AuthenticationDetails({ Username: USER, Password: password })
      user.authenticateUser(details, {
        onSuccess: (session) => resolve(session.getAccessToken().getJwtToken()),
        onFailure: reject,
      })
    })

  test.each(['right', 'pässwörd-密码'])('password %s: the same A and the same signature', async (password) => {
    const server = await cognitoServer({ password, fixed })
    const random = vi.spyOn(globalThis.crypto, 'getRandomValues').mockImplementation((array) => {
      const bytes = new Uint8Array(array!.buffer, array!.byteOffset, array!.byteLength)
      bytes.set(a.subarray(0, bytes.length))
      return array
    })
    const helper = (peer as unknown as { AuthenticationHelper: { prototype: Record<string, () => unknown> } })
      .AuthenticationHelper.prototype
    const BigInteger = Object.getPrototypeOf(
      new (helper.constructor as never as new (p: string) => { N: object })('x').N,
    ).constructor as new (
      text: string,
      radix: number,
    ) => object
    const small = vi
      .spyOn(helper, 'generateRandomSmallA')
      .mockImplementation(() => new BigInteger(Buffer.from(a).toString('hex'), 16))
    onTestFinished(() => {
      random.mockRestore()
      small.mockRestore()
    })
    expect(server.live(await peerLogin(server.origin, password))).toBe(true)
    const [theirStart, theirClaim] = server.bodies()
    const { TIMESTAMP } = theirClaim.ChallengeResponses
    const context = contextOf(dialer(), fakeClock('auto', Date.parse(TIMESTAMP)))
    const grant = await way(server, password).authorize(context)
    expect(server.live(grant.accessToken)).toBe(true)
    const [ourStart, ourClaim] = server.bodies().slice(2)
    expect(ourStart.AuthParameters).toEqual(theirStart.AuthParameters)
    expect(ourClaim.ChallengeResponses).toEqual(theirClaim.ChallengeResponses)
  })

  test('both are refused with a wrong password', async () => {
    const server = await cognitoServer()
    await expect(peerLogin(server.origin, 'wrong')).rejects.toMatchObject({ code: 'NotAuthorizedException' })
    const work = way(server, 'wrong').authorize(contextOf(dialer(), fakeClock()))
    expect(await errorOf(work)).toMatchObject({ code: 'WRONG_CREDENTIALS' })
  })
})
